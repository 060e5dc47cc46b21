"""WHO. Accounts, groups, connections and their sealed keys; knows no time-table and no venue code."""
