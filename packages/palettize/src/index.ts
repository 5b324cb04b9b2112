export {
  attend,
  backward,
  freeTrace,
  type LayerOptions,
  type PointGradients,
  type Points,
  type Trace,
} from './dkm/layer.ts'
export { palettizeOptions } from './options.ts'
export { palettize } from './palettize.ts'
