"""Programs for those who work on Craft; nothing of it is installed with Craft."""
