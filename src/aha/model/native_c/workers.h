/* Work that is divided among threads. Each source says what a `Job` is. */
#include <pthread.h>

typedef struct Job Job;
typedef void (*Work)(const Job *, int64_t first, int64_t last);

typedef struct {
    const Job *job;
    Work work;
    int64_t first, last;
} Share;

static void *run_share(void *argument) {
    const Share *share = argument;
    share->work(share->job, share->first, share->last);
    return NULL;
}

/* Fewer numbers than MIN_NUMBERS take less time than the start of a thread. */
enum { MIN_NUMBERS = 1 << 15, MAX_THREADS = 64 };

static void spread(const Job *job, Work work, int64_t rows, int64_t numbers, int threads) {
    if (numbers < MIN_NUMBERS || threads < 2) {
        work(job, 0, rows);
        return;
    }
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    pthread_t ids[MAX_THREADS];
    Share shares[MAX_THREADS];
    int started = 0;
    for (int t = 0; t < threads; t++) {
        shares[t] = (Share){job, work, rows * t / threads, rows * (t + 1) / threads};
        if (t + 1 == threads) break;
        if (pthread_create(ids + t, NULL, run_share, shares + t)) {
            shares[t].last = rows; /* no more threads: this one does the rest */
            break;
        }
        started++;
    }
    run_share(shares + started);
    for (int t = 0; t < started; t++) pthread_join(ids[t], NULL);
}
