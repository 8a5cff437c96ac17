"""One file per database driver; its name is the driver's."""
