"""From a stored WAV to a stored transcript, by way of AssemblyAI."""
