"""Plans a run without a cluster: settings, steps, names, checks of data placement, and descriptions of Jobs."""
