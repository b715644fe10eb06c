"""A folder or an archive of shapes, turned into a data set."""
