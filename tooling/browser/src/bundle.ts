/** Pages as a user's bundler would make them. */

import path from 'node:path'
import { build, type Plugin } from 'vite'

/** What a page reaches must need no Node: the first import of a builtin is an error with its importer's name. */
const noBuiltins: Plugin = {
  name: 'no builtins of Node',
  enforce: 'pre',
  resolveId(source, importer) {
    if (/^(node:|fs$|path$|os$|crypto$|module$|worker_threads$)/.test(source)) {
      this.error(`${importer} imports ${source}, which browsers don't have`)
    }
  },
}

/** Bundles the page in `root` into `outDir`. */
export async function bundle(root: string, outDir: string): Promise<void> {
  await build({
    ...{ root, configFile: false, logLevel: 'warn', base: './', plugins: [noBuiltins] },
    worker: { format: 'es', plugins: () => [noBuiltins] },
    build: {
      ...{ outDir, emptyOutDir: true, target: 'esnext', assetsInlineLimit: 0 },
      rollupOptions: { input: path.join(root, 'index.html') },
    },
  })
}
