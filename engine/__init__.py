"""WHAT. Plans, orders, facts, gaps and reports: everything the office does with its accounts."""
