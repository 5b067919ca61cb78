"use strict";
// A report: its spectra, and a viewer for each dataset that comes into sight.
(() => {
  const { spectrum, scan, viewer } = window.hpcxrf;

  document.querySelectorAll("figure.spectrum:has(script.numbers)").forEach((figure) => {
    spectrum.build(figure, JSON.parse(figure.querySelector("script.numbers").textContent));
  });

  // Details of a closed dataset have no extent, and so get no viewer.
  const build = (section) => {
    const details = section.closest(".body");
    try {
      viewer.build(section.querySelector(".viewer-place"), scan.fromPage(details));
    } catch (error) {
      // The pictures without a viewer are there still.
      details.classList.remove("has-viewer");
      section.hidden = true;
      throw error;
    }
  };
  const watch = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watch.unobserve(entry.target);
    build(entry.target);
  }), { rootMargin: "600px" });
  document.querySelectorAll('[data-place="viewer"]').forEach((section) => {
    section.hidden = false;
    section.closest(".body").classList.add("has-viewer");
    watch.observe(section);
  });
})();
