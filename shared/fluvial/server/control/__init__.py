"""The control routes: projects, estuaries (fan-in streams), stream names, health and metrics, on FastAPI."""
