"""WHEN. Knows no account and no venue: the life of a link, the timetable, the clock."""
