"""What is on local disk while a call lives, and how it becomes a WAV."""
