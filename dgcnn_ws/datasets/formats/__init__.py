"""One file a family of formats: `read_*` makes the triangles or points of bytes that nobody vouches for.

Libraries do the work. What one would do with a hostile file beyond that (copy a buffer a thousand times, compare
every name with every other, open files that are named inside) is refused or taken out beforehand. A reader raises
any exception where its file cannot be read; `shape_file.read_shape` turns it into one sentence.
"""
