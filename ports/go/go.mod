module kmutex

go 1.18
