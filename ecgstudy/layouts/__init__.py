"""Layouts: what a printed 12-lead ECG shows, and diagnosing from that alone, from signals or from paper."""
