import com.google.common.util.concurrent.Striped;
import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Lock;

/**
 * The adapter of Guava's Striped, as it is. It is built with the adapter of the port to Java, which it is driven by.
 *
 * <pre>
 * Peer NAME lock STRIPES        Striped.lock, of ReentrantLocks
 * Peer NAME semaphore STRIPES   Striped.semaphore with one permit
 * </pre>
 */
final class Peer {
    private static final List<String> FEATURES = List.of("cancel", "try", "done", "refuse", "deadline");

    public static void main(String[] arguments) throws IOException {
        int stripes = Integer.parseInt(arguments[2]);
        boolean locks = arguments[1].equals("lock");
        new Adapter(arguments[0], FEATURES, () -> locks ? new Locks(stripes) : new Semaphores(stripes)).serve();
    }

    /** A ReentrantLock is unlocked by the thread that has it, so each grant has a thread of its own, to its end. */
    private static final class Locks implements Locker {
        private final Striped<Lock> striped;
        private final Map<String, Release> holders = new HashMap<>();

        Locks(int stripes) {
            striped = Striped.lock(stripes);
        }

        /** A way to have the lock; false: refused. */
        private interface Way {
            boolean take(Lock lock) throws InterruptedException;
        }

        @Override
        public Release lock(String key) throws InterruptedException {
            return owned(key, lock -> {
                lock.lockInterruptibly();
                return true;
            });
        }

        @Override
        public Release tryLock(String key) {
            try {
                return owned(key, Lock::tryLock);
            } catch (InterruptedException interrupt) {
                throw new IllegalStateException(interrupt);
            }
        }

        @Override
        public Release tryLock(String key, long milliseconds) throws InterruptedException {
            return owned(key, lock -> lock.tryLock(milliseconds, TimeUnit.MILLISECONDS));
        }

        private Release owned(String key, Way way) throws InterruptedException {
            CompletableFuture<Boolean> taken = new CompletableFuture<>();
            CompletableFuture<Void> wanted = new CompletableFuture<>();
            CompletableFuture<Void> unlocked = new CompletableFuture<>();
            boolean before = Thread.interrupted();
            Thread owner = new Thread(() -> {
                Lock lock = striped.get(key);
                try {
                    if (before) {
                        Thread.currentThread().interrupt();
                    }
                    boolean got = way.take(lock);
                    taken.complete(got);
                    if (got) {
                        wanted.join();
                        lock.unlock();
                        unlocked.complete(null);
                    }
                } catch (InterruptedException interrupt) {
                    taken.completeExceptionally(interrupt);
                }
            });
            owner.setDaemon(true);
            owner.start();
            boolean got = answer(taken, owner);
            if (!got) {
                return null;
            }
            Release release = () -> {
                wanted.complete(null);
                unlocked.join();
            };
            synchronized (holders) {
                holders.put(key, release);
            }
            return release;
        }

        /** Interrupts the owner where the caller is; it is the owner's lock that says which came first. */
        private static boolean answer(CompletableFuture<Boolean> taken, Thread owner) throws InterruptedException {
            while (true) {
                try {
                    return taken.get();
                } catch (InterruptedException interrupt) {
                    owner.interrupt();
                } catch (ExecutionException failed) {
                    throw new InterruptedException();
                }
            }
        }

        @Override
        public void unlock(String key) {
            Release release;
            synchronized (holders) {
                release = holders.remove(key);
            }
            if (release == null) {
                throw new KeyedMutex.UnheldKeyException("no grant of " + key + " has returned");
            }
            release.release();
        }

        @Override
        public Map<String, Counts> counts() {
            throw new UnsupportedOperationException("stat is not declared");
        }
    }

    /** A semaphore is released by anybody. */
    private static final class Semaphores implements Locker {
        private final Striped<Semaphore> striped;

        Semaphores(int stripes) {
            striped = Striped.semaphore(stripes, 1);
        }

        @Override
        public Release lock(String key) throws InterruptedException {
            striped.get(key).acquire();
            return () -> unlock(key);
        }

        @Override
        public Release tryLock(String key) {
            return striped.get(key).tryAcquire() ? () -> unlock(key) : null;
        }

        @Override
        public Release tryLock(String key, long milliseconds) throws InterruptedException {
            boolean taken = striped.get(key).tryAcquire(milliseconds, TimeUnit.MILLISECONDS);
            return taken ? () -> unlock(key) : null;
        }

        @Override
        public void unlock(String key) {
            striped.get(key).release();
        }

        @Override
        public Map<String, Counts> counts() {
            throw new UnsupportedOperationException("stat is not declared");
        }
    }
}
