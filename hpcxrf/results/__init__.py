"""Result stores, exports, pictures and reports."""
