"""Signal processing: the short-time Fourier transform and the Wiener filter."""
