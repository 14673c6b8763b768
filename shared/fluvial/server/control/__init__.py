"""Control routes: projects, estuaries, health and metrics, on FastAPI."""
