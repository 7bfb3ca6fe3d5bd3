// The JVM: exceptions deep in the stack, null checks by SIGSEGV, stack overflows, monitors, garbage; in a storm, children.
import java.util.concurrent.atomic.AtomicLong;

public class Target {
    static final AtomicLong made = new AtomicLong();
    static class Declined extends Exception {
        Declined(String text) { super(text); made.incrementAndGet(); }
    }
    static int deep(int n) throws Declined {
        if (n == 0) throw new Declined("order");
        return deep(n - 1) + 1;
    }
    static int[] nothing;
    static int over(int n) { return over(n + 1) + 1; }
    static Object garbage;
    static long part(int from) {
        long sum = 0;
        for (int i = from; i < 600; i += 2) {
            try { sum += deep(i % 20); } catch (Declined e) { sum += e.getMessage().length(); }
            try { sum += nothing[i]; } catch (NullPointerException e) { sum += 2; }
            sum += ("order" + i).intern().length();
            synchronized (made) { garbage = new byte[10000]; }
        }
        return sum;
    }
    static long work() throws Exception {
        long[] sums = new long[2];
        Thread[] threads = new Thread[2];
        for (int t = 0; t < 2; t++) {
            int from = t;
            threads[t] = new Thread(() -> sums[from] = part(from));
            threads[t].start();
        }
        for (Thread thread : threads) thread.join();
        System.gc();
        return sums[0] + sums[1];
    }
    static int child() throws Exception {
        Process child = new ProcessBuilder(System.getProperty("java.home") + "/bin/java", "-cp",
            System.getProperty("java.class.path"), "Target", "child").redirectErrorStream(true).start();
        child.getInputStream().readAllBytes();
        return child.waitFor();
    }
    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) System.exit(part(0) == part(0) ? 77 : 78);
        work();
        // What starting a child loads throws exceptions of its own, once.
        child();
        try { over(0); } catch (StackOverflowError e) { made.get(); }
        long pid = ProcessHandle.current().pid();
        System.out.print("ready " + pid + "\n");
        System.out.flush();
        byte[] line = new byte[64];
        for (int n; (n = System.in.read(line)) > 0;) {
            made.set(0);
            long sum = work();
            long before = made.get();
            int wrong = 0;
            boolean storm = line[0] == 's';
            if (storm) for (int i = 0; i < 3; i++) if (child() != 77) wrong++;
            System.out.print("{\"sum\":" + sum + ",\"calls\":{\"JVM_FillInStackTrace\":" + (before + 600) + "},\"wrong\":" + wrong + ",\"children\":" + (storm ? 1000000 : 0) + "}\n");
            System.out.flush();
        }
        System.exit(57);
    }
}
