"""What watching costs: ours, a hand-written floor and the peers, above a bare application. See docs/overhead.md."""
