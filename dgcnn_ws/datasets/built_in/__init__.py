"""The data set that needs no download: furniture and household objects, made by rules."""
