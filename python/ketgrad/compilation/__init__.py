"""`kg.compile`: functions that return tapes are traced once per structure; later calls do not run their Python."""
