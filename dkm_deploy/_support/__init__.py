"""What any module may use and no user calls: files, paths, arguments, progress."""
