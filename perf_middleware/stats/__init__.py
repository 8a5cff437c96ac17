"""Rolling stats: histograms that merge exactly, the windows they are kept in, and what readers make of them."""
