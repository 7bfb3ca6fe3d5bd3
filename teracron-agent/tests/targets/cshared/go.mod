module cshared

go 1.19
