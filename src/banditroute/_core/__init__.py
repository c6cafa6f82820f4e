"""Arrays, files, threads and kernels; knows no policy."""
