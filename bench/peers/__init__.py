"""The same work done with other people's software. Scripts that import nothing of emograph: they may run in an
environment of their own (`emograph bench NAME --python PATH`)."""
