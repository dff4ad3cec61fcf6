"""A face for machines: health, readiness and figures over HTTP."""
