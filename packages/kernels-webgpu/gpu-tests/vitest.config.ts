import { defineConfig } from 'vitest/config'

/** One file at a time: software drivers take all cores by themselves. */
export default defineConfig({
  test: { dir: import.meta.dirname, testTimeout: 300_000, maxWorkers: 1 },
})
