"""Looking at a data set before anything is trained on it: what it holds, and what is easy in it."""
