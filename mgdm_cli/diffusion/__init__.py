"""The mathematics of diffusion in one coordinate: `x = x0 + sigma * eps`. No path, no print, no network by name."""
