module who

go 1.22
