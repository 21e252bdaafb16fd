"""Published figures of the invertible-attention paper as CSV files; read them through ``invattn.records``."""
