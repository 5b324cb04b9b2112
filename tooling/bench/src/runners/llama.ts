/** llama.cpp through node-llama-cpp. */

import { importPeer } from '../peers.ts'
import {
  LONG_PROMPT,
  NEW_TOKENS,
  promptTokens,
  SHORT_PROMPT,
  serve,
  stopwatch,
} from './protocol.ts'

interface Sequence {
  clearHistory(): Promise<void>
  evaluate(tokens: readonly number[], options: object): AsyncIterable<number>
}
interface LlamaModel {
  createContext(options: object): Promise<{ getSequence(): Sequence }>
}
interface NodeLlamaCpp {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel> }>
}

await serve(async ({ model: file, threads }) => {
  const { getLlama } = await importPeer<NodeLlamaCpp>('node-llama-cpp', 'dist/index.js')
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads })
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
  const context = await model.createContext({ contextSize: 1024, batchSize: 512, threads })
  const sequence = context.getSequence()

  /** Calls back with each token until it says false. */
  async function generate(count: number, more: (token: number) => boolean): Promise<void> {
    await sequence.clearHistory()
    const options = { temperature: 0, yieldEogToken: true }
    for await (const token of sequence.evaluate(promptTokens(count), options)) {
      if (!more(token)) break
    }
  }

  await generate(SHORT_PROMPT, () => false)
  return {
    async decode() {
      const watch = stopwatch()
      const made: number[] = []
      await generate(SHORT_PROMPT, (token) => {
        if (made.length === 0) watch.begin()
        return made.push(token) <= NEW_TOKENS
      })
      return { ...watch.usage(), tokens: NEW_TOKENS, text: made.slice(0, 6).join(' ') }
    },
    async prompt() {
      const watch = stopwatch()
      await generate(LONG_PROMPT, () => false)
      return { ...watch.usage(), tokens: LONG_PROMPT }
    },
  }
})
