/** llama.cpp's generation behind a cache that is full, through node-llama-cpp. Caches by the names of ggml's types. */

import { importPeer } from '../peers.ts'
import { BEHIND_TOKENS, promptTokens, serve, stopwatch } from './protocol.ts'

interface Sequence {
  evaluate(tokens: readonly number[], options: object): AsyncIterable<number>
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>
  eraseContextTokenRanges(ranges: readonly { start: number; end: number }[]): Promise<void>
  readonly nextTokenIndex: number
}
interface LlamaModel {
  createContext(options: object): Promise<{ getSequence(): Sequence }>
}
interface NodeLlamaCpp {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel> }>
}

await serve(async ({ model: file, threads, behind = { tokens: 0, cache: 'F16' } }) => {
  const { getLlama } = await importPeer<NodeLlamaCpp>('node-llama-cpp', 'dist/index.js')
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads })
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
  const context = await model.createContext({
    ...{ contextSize: behind.tokens + 2 * BEHIND_TOKENS, batchSize: 512, threads },
    ...{ experimentalKvCacheKeyType: behind.cache, experimentalKvCacheValueType: behind.cache },
    // It has values in few bits with flash attention alone.
    flashAttention: true,
  })
  const sequence = context.getSequence()
  const all = promptTokens(behind.tokens)
  await sequence.evaluateWithoutGeneratingNewTokens(all)

  return {
    async behind() {
      const watch = stopwatch()
      const made: number[] = []
      const options = { temperature: 0, yieldEogToken: true }
      for await (const token of sequence.evaluate([all[0]], options)) {
        if (made.push(token) === BEHIND_TOKENS) break
      }
      const usage = watch.usage()
      await sequence.eraseContextTokenRanges([
        { start: behind.tokens, end: sequence.nextTokenIndex },
      ])
      return { ...usage, tokens: BEHIND_TOKENS, text: made.slice(0, 6).join(' ') }
    },
  }
})
