/* Work that is dealt to threads. Each source says what a `Job` is. */
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

enum { LITTLE = 1 << 15, CROWD = 64 }; /* numbers below which a thread is not worth its start */

static void spread(const Job *job, Work work, int64_t rows, int64_t numbers, int threads) {
    if (numbers < LITTLE || threads < 2) {
        work(job, 0, rows);
        return;
    }
    if (threads > CROWD) threads = CROWD;
    pthread_t ids[CROWD];
    Share shares[CROWD];
    int started = 0;
    for (int t = 0; t < threads; t++) {
        shares[t] = (Share){job, work, rows * t / threads, rows * (t + 1) / threads};
        if (t + 1 == threads) break;
        if (pthread_create(ids + t, NULL, run_share, shares + t)) {
            shares[t].last = rows; /* no thread to be had: the rest is done here */
            break;
        }
        started++;
    }
    run_share(shares + started);
    for (int t = 0; t < started; t++) pthread_join(ids[t], NULL);
}
