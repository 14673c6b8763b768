"""The console: the page at `/` on which people look at streams, write to them and set up projects."""
