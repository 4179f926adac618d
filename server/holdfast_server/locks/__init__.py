"""Leadership for what must run once.  Nothing here guards stock: the kernel's one script does."""
