import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['packages/*/src/**/*.test.ts', 'apps/*/src/**/*.test.ts', 'tooling/*/**/*.test.ts'],
    testTimeout: 240_000,
    // Two cores: each test file that runs a model takes threads of its own.
    maxWorkers: 2,
  },
})
