"""A face for other systems: find calls, fetch their files, and control live ones."""
