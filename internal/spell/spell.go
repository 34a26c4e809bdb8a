// Package spell finds what a mistyped word was meant to be.
package spell

// Nearest returns the candidate closest to word by edit distance, the first of equals, or "" if none is close enough
// to be a likely typo (a third of the word's length, at least one, at most four edits). Case of
// ASCII letters does not count.
func Nearest(word string, candidates []string) string {
	best, bound := "", min(4, max(1, len(word)/3))+1
	for _, c := range candidates {
		if c == word {
			continue
		}
		if d := distance(word, c, bound); d < bound {
			best, bound = c, d
		}
	}
	return best
}

// distance is the optimal string alignment distance of a and b (insert, delete, replace, swap of neighbours; ASCII
// letters compare without case), or at least bound where it would be more.
func distance(a, b string, bound int) int {
	if abs(len(a)-len(b)) >= bound {
		return bound
	}
	var rows [3][]int
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
	}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if lower(a[i-1]) == lower(b[j-1]) {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && lower(a[i-1]) == lower(b[j-2]) && lower(a[i-2]) == lower(b[j-1]) {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = above, row, before
	}
	return rows[1][len(b)]
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func abs(n int) int { return max(n, -n) }
