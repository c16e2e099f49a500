"""The results folder: records, arrays, heartbeat; imports and exports of runs."""
