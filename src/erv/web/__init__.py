"""What our web servers share: gate, headers, limits, errors in a sentence, pages, start and end."""
