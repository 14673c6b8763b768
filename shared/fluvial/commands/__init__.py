"""The subcommands of `fluvial`, each in a module of its own."""
