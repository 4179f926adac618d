"""The load harness: agents that browse, think, reserve and pay, at a rate that waits for nobody."""
