import { cpSync, createReadStream, existsSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

const DEMO = path.resolve(import.meta.dirname, '../../packages/demo-model/model')
const NEEDED =
  /^(config|tokenizer|tokenizer_config|generation_config)\.json$|^model\.safetensors$|\.txt$/

/** Without them memory can't be shared between threads. A static host that can't send them has the service worker. */
const headers = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
}

/** The bundled model lies beside the page. */
function demoModel(): Plugin {
  return {
    name: 'demo-model',
    configureServer(server) {
      server.middlewares.use('/demo', (request, response, next) => {
        const name = path.basename(request.url ?? '')
        const file = path.join(DEMO, name)
        if (!NEEDED.test(name) || !existsSync(file)) return next()
        response.setHeader('content-length', statSync(file).size)
        createReadStream(file).pipe(response)
      })
    },
    writeBundle({ dir }) {
      for (const name of readdirSync(DEMO).filter((name) => NEEDED.test(name))) {
        cpSync(path.join(DEMO, name), path.join(dir!, 'demo', name))
      }
    },
  }
}

export default defineConfig({
  base: './',
  plugins: [svelte(), demoModel()],
  server: { headers },
  preview: { headers },
  worker: { format: 'es', rolldownOptions: { external: ['webgpu'] } },
  build: {
    target: 'es2023',
    // Dawn is for Node; a browser without WebGPU says so.
    rolldownOptions: { external: ['webgpu'] },
  },
})
