"""Where finished objects go: a folder, or S3."""
