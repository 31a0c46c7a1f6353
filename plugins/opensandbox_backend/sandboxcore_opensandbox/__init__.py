"""OpenSandbox as a backend of sandboxcore: BatchSandboxes from images or pools, or opensandbox-server."""
