"""The paper: regions, nodes, messages, attention, the stages in space and time, the graph, its readout."""
