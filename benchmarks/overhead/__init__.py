"""What watching costs: ours beside a bare application, a hand-written floor and the peers. `scripts/overhead` runs it."""
