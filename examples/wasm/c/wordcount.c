/*
 * The same program as main.go beside this folder, in C:
 *
 *     clang --target=wasm32-wasi -O2 -o examples/wasm/wordcount-c.wasm examples/wasm/c/wordcount.c
 *
 * It prints the words of a file that occur most often. Letters are those of
 * ASCII alone.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 16, LONGEST = 255 };

struct word {
	struct word *next;
	int count;
	char text[];
};

static struct word *table[BUCKETS];
static size_t words;

static void *need(void *p) {
	if (p == NULL) {
		fputs("out of memory\n", stderr);
		exit(1);
	}
	return p;
}

/* add counts one more of a word. */
static void add(const char *text) {
	unsigned hash = 5381;
	for (const char *c = text; *c; c++)
		hash = hash * 33 + (unsigned char)*c;
	struct word **at = &table[hash % BUCKETS];
	for (; *at; at = &(*at)->next)
		if (strcmp((*at)->text, text) == 0) {
			(*at)->count++;
			return;
		}
	*at = need(calloc(1, sizeof **at + strlen(text) + 1));
	strcpy((*at)->text, text);
	(*at)->count = 1;
	words++;
}

/* read_words counts the words of a file. */
static void read_words(FILE *f) {
	char text[LONGEST + 1];
	size_t n = 0;
	for (int c; (c = getc(f)) != EOF || n > 0;) {
		if (c != EOF && isalpha(c)) {
			if (n < LONGEST)
				text[n++] = (char)tolower(c);
			continue;
		}
		text[n] = 0;
		if (n > 0)
			add(text);
		n = 0;
	}
}

/* order puts frequent words first, and words that are as frequent by name. */
static int order(const void *a, const void *b) {
	const struct word *x = *(struct word *const *)a, *y = *(struct word *const *)b;
	return x->count != y->count ? y->count - x->count : strcmp(x->text, y->text);
}

int main(int argc, char **argv) {
	if (argc != 3) {
		fputs("usage: wordcount FILE HOW-MANY\n", stderr);
		return 2;
	}
	FILE *f = fopen(argv[1], "r");
	if (f == NULL) {
		perror(argv[1]);
		return 1;
	}
	read_words(f);
	struct word **list = need(calloc(words + 1, sizeof *list));
	size_t n = 0;
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct word *w = table[i]; w; w = w->next)
			list[n++] = w;
	qsort(list, n, sizeof *list, order);
	for (size_t i = 0; i < n && i < strtoul(argv[2], NULL, 10); i++)
		printf("%d %s\n", list[i]->count, list[i]->text);
	return 0;
}
